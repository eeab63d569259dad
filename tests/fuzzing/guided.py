"""One target under atheris, in a process of its own: name, corpus, and options of libFuzzer."""

import logging
import sys
import warnings

import atheris

with atheris.instrument_imports(include=["facerelay"]):
    from fuzzing.mutate import Mutator
    from fuzzing.targets import targets


def main() -> None:
    """Fuzz until the time is up, or something is found."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    target = targets()[sys.argv[1]]

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        if seed % 2:
            return bytes(atheris.Mutate(data, most))
        return Mutator(seed, target.seeds).mutate(data, most)

    atheris.Setup([sys.argv[0], *sys.argv[2:]], target.run, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
