"""review: the one public function; it starts the server in a thread and returns a handle."""

from __future__ import annotations

import asyncio
import html
import logging
import secrets
import threading
import webbrowser
from typing import TYPE_CHECKING

from tornado.netutil import bind_sockets

from nimbus_sd import keys
from nimbus_sd._review.serve import serve
from nimbus_sd._review.session import Session

if TYPE_CHECKING:
    from spatialdata import SpatialData

logger = logging.getLogger("nimbus_sd")


class Review:
    """A review that is being served: its address, and how it ends.

    Attributes
    ----------
    url
        The page's address, with the token without which nothing is answered.
    """

    def __init__(self, session: Session, port: int) -> None:
        try:
            sockets = bind_sockets(port, "127.0.0.1")
        except (OSError, OverflowError) as error:
            session.close()
            raise OSError(f"Port {port} of this machine cannot be used ({error}); name another `port`.") from error
        token, self._session = secrets.token_urlsafe(), session
        self.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}/?token={token}"
        self._loop, self._stop = asyncio.new_event_loop(), asyncio.Event()
        work = serve(session, token, sockets, self._stop)
        # A loop of its own: that of a notebook is busy while a cell runs.
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(work,), daemon=True)
        self._thread.start()

    def stop(self) -> str:
        """End the server; what was done stays in the log, and in the table what was saved. Says what was not saved."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
        return self._session.close()

    def wait(self) -> None:
        """Wait until the server ends."""
        while self._thread.is_alive():
            # In short turns, so that Ctrl-C is heard on every system.
            self._thread.join(0.5)

    def __repr__(self) -> str:
        return f"Review at {self.url}" if self._thread.is_alive() else "Review (stopped)"

    def _repr_html_(self) -> str:
        if not self._thread.is_alive():
            return "<p>Review (stopped)</p>"
        return f'<p><a href="{html.escape(self.url)}" target="_blank" rel="noopener">Review in the browser</a></p>'


def review(
    sdata: SpatialData,
    table_key: str = "table",
    *,
    layer: str = keys.NIMBUS,
    annotator: str | None = None,
    port: int = 0,
    browser: bool = False,
) -> Review:
    """Open a page in the browser to see scores on the tissue, correct them, and let them learn from that.

    The page is served to this machine alone, and asks no other one for anything. Each step is kept at once in a log
    beside the store, ``<store>.review.jsonl``, so that nothing is lost whatever stops it: the next call goes on from
    there. The table changes when the page's Save is pressed; only regions that are drawn for evaluation, new clusters,
    types and scores are in the table in memory before. The store changes when Save is pressed, by
    :func:`nimbus_sd.io.save_table`. Data in memory only have no log.

    Parameters
    ----------
    sdata
        Images, labels (or shapes) and a table that :func:`nimbus_sd.predict` scored.
    table_key
        The table.
    layer
        Layer of scores to begin with.
    annotator
        Who judges, as it is noted with each step: letters, digits, ``_``, ``-`` and ``.``. None takes who did the last
        step, else the user's name on this machine.
    port
        Port to serve on; 0 takes a free one.
    browser
        Open the page in a browser at once.

    Returns
    -------
    Review
        With ``url``, ``stop()`` and ``wait()``. It serves until it is stopped or the process ends. In a notebook it is
        shown as a link.

        Save sets in the table:

        - ``layers["gold_training"]``: labels of single cells; ``layers["gold_<annotator>"]``, ``layers["gold"]``: those
          of regions that were drawn for evaluation, and what the annotators agree on
        - ``layers["nimbus_adapted"]``: as :func:`nimbus_sd.tl.adapt` sets it, where there are labels of single cells
        - ``layers["positive"]``: as :func:`nimbus_sd.tl.call_positive` sets it, with the thresholds of the page
        - ``obs["metacluster_<clusters>"]``: as :meth:`nimbus_sd.tl.Metaclusters.apply` sets it, where they were edited
        - ``uns["review"]``: which steps of which log are in the table

    Raises
    ------
    KeyError, TypeError, ValueError
        There is no such table or layer of scores, no cell, or no image for it; or the log is damaged (it says where).
    OSError
        Another process reviews this store (it says which), or the port is taken.

    Examples
    --------
    >>> import nimbus_sd as ns
    >>> sdata = ns.datasets.example()
    >>> adata = ns.predict(sdata, channels=["CD3"], progress=False)
    >>> page = ns.review(sdata)
    >>> page.url.startswith("http://127.0.0.1:")
    True
    >>> _ = page.stop()
    """
    session = Session(sdata, table_key, layer, annotator)
    page = Review(session, port)
    for notice in session.notices:
        logger.warning(notice)
    if browser and not webbrowser.open(page.url):
        logger.warning("no browser could be opened: open %s", page.url)
    return page
