"""The gallery: the faces of a bucket on web pages."""

from facerelay.cloud.gallery.app import make_app, serve_gallery

__all__ = ["make_app", "serve_gallery"]
