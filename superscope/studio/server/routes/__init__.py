"""The routes, one file each."""

from fastapi import APIRouter

from . import arrays, bench, compare, events, jobs, page, runs, search, session, studies, tables

ROUTES: tuple[APIRouter, ...] = tuple(
    module.router for module in (session, runs, tables, arrays, search, studies, jobs, bench, compare, events, page)
)
"""In the order in which they are tried; the page answers what is left."""
