"""One thread that owns a SQLite connection and commits what waits together: group commit."""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

T = TypeVar("T")
Job = tuple[Callable[[sqlite3.Connection], Any], "Future[Any]"]
_MOST: Final = 500
"""Jobs in one transaction at most: a commit costs one fsync, however many share it."""


class GroupWriter:
    """Runs jobs on a connection, many to a transaction; a job's future resolves once it is on disk.

    Args:
        connect: opens the connection, in the thread that will own it.
        before_commit: called in each transaction before its COMMIT.
        after_commit: called in the writer's thread when a transaction is on disk.
        after_rollback: called there when one is not, with what went wrong: nothing of it happened.
        mend: called then, with the error: returns another connection, on which the jobs are tried again, or
            None where the fault is not the file's; its own error is the jobs' too.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        *,
        before_commit: Callable[[sqlite3.Connection], None],
        after_commit: Callable[[], None],
        after_rollback: Callable[[sqlite3.Connection, BaseException], None],
        mend: Callable[[sqlite3.Connection, BaseException], sqlite3.Connection | None],
    ) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._before_commit = before_commit
        self._after_commit = after_commit
        self._after_rollback = after_rollback
        self._mend = mend
        self._db: sqlite3.Connection
        opened: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(connect, opened), name="outbox", daemon=True)
        self._thread.start()
        opened.result()

    def submit(self, job: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Queue a job; its exception, or the commit's, is its future's."""
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # who waits may go away, the job goes on
        self._jobs.put((job, future))
        return future

    def close(self) -> None:
        """Finish what is queued, and close the connection."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self, connect: Callable[[], sqlite3.Connection], opened: Future[None]) -> None:
        try:
            self._db = connect()
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
            opened.set_exception(error)
            return
        opened.set_result(None)
        try:
            while batch := self._batch():
                self._commit(batch)
        finally:
            self._db.close()

    def _batch(self) -> list[Job]:
        batch: list[Job] = []
        job = self._jobs.get()
        while job is not None:
            batch.append(job)
            if len(batch) == _MOST:
                return batch
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return batch
        if batch:
            self._jobs.put(None)
        return batch

    def _commit(self, batch: list[Job]) -> None:
        """Run a batch in one transaction; where that fails, each job in its own, so a fault is one's own."""
        try:
            results = self._transact(self._db, batch)
        except Exception as error:  # noqa: BLE001 - it is the job's future's to raise
            self._bear(batch, error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)

    def _bear(self, batch: list[Job], error: Exception) -> None:
        try:
            mended = self._mend(self._db, error)
        except sqlite3.Error as worse:
            for _, future in batch:
                future.set_exception(worse)
            return
        if mended is not None:
            self._db = mended
            self._commit(batch)
        elif len(batch) == 1:
            batch[0][1].set_exception(error)
        else:
            for job in batch:
                self._commit([job])

    def _transact(self, db: sqlite3.Connection, batch: list[Job]) -> list[Any]:
        try:
            db.execute("BEGIN IMMEDIATE")
            results = [job(db) for job, _ in batch]
            self._before_commit(db)
            db.execute("COMMIT")
        except BaseException as error:
            try:
                if db.in_transaction:
                    db.execute("ROLLBACK")
            finally:
                self._after_rollback(db, error)
            raise
        self._after_commit()
        return results
