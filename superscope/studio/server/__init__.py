"""Who answers the studio's pages? A server on this machine, for this user, over folders of runs."""

from .app import Place, make_app, server_of

__all__ = ["Place", "make_app", "server_of"]
