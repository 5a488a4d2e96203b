"""Pages at addresses that were published once: each leads on to where its page is now."""

from __future__ import annotations

from collections.abc import Iterable

from tokrig.site import Output
from tokrig.site.addresses import follow
from tokrig.site.context import Site, key_of


class Redirects:
    """A small page at every old address of content/redirects.yaml."""

    name = "redirects"

    def outputs(self, site: Site) -> Iterable[Output]:
        """One page an old address; of several redirects in a row each leads to the last place."""
        for old, new in follow(site.redirects).items():
            yield Output(
                old,
                key_of(old, new),
                lambda old=old, new=new: site.page(  # type: ignore[misc]
                    old, "redirect.html", title="This page has moved", target=new
                ),
            )


PAGE = Redirects()
