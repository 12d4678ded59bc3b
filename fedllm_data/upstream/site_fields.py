"""Stack Exchange sites by field of work, so that the dumps of several sites make one federated corpus.

`--set fields=medicine,law` keeps the sites of these fields, `--set fields=brewing:beer.stackexchange.com` names a
field of one's own, with its sites joined by +. `--set client=site` or `client=field` makes the site or the field the
client instead of the person: the same rows, by organisation.
"""

import re
from collections.abc import Mapping

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import SourceError
from fedllm_data.upstream.odd_fields import choice_option

__all__ = ["CLIENT_LEVELS", "FIELDS", "HOST", "SiteChoice", "read_site_choice"]

HOST = re.compile(r"(?:[a-z0-9-]+\.)+(?:com|net|org)(?![a-z0-9.])")
"""A site's host name, within a text."""
FIELDS: dict[str, tuple[str, ...]] = {
    "medicine": (
        "medicalsciences.stackexchange.com",
        "health.stackexchange.com",  # its name until 2018
        "psychology.stackexchange.com",
        "cogsci.stackexchange.com",  # its name until 2017
        "biology.stackexchange.com",
        "bioinformatics.stackexchange.com",
    ),
    "law": ("law.stackexchange.com", "patents.stackexchange.com"),
    "finance": (
        "money.stackexchange.com",
        "quant.stackexchange.com",
        "economics.stackexchange.com",
        "bitcoin.stackexchange.com",
    ),
    "code": (
        "stackoverflow.com",
        "codereview.stackexchange.com",
        "softwareengineering.stackexchange.com",
        "dba.stackexchange.com",
        "unix.stackexchange.com",
        "askubuntu.com",
        "serverfault.com",
        "superuser.com",
    ),
    "manufacturing": (
        "engineering.stackexchange.com",
        "electronics.stackexchange.com",
        "mechanics.stackexchange.com",
        "robotics.stackexchange.com",
        "3dprinting.stackexchange.com",
        "woodworking.stackexchange.com",
    ),
}
"""Field -> the sites of it; a site is in one field."""
CLIENT_LEVELS = ("author", "site", "field")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")


class SiteChoice:
    """Which sites are read, and who the client is."""

    def __init__(self, level: str, field_of: Mapping[str, str] | None) -> None:
        """Keep what the options say.

        Args:
            level: one of `CLIENT_LEVELS`.
            field_of: site -> field, of the sites that are read; None reads every site.
        """
        self.level = level
        self._field_of = field_of

    def takes(self, site: str) -> bool:
        """Return whether a site is read."""
        return self._field_of is None or site in self._field_of

    def client_of(self, site: str, person: str) -> str:
        """Return the client of a row: SITE:USER, the site, or the field."""
        if self.level == "field" and self._field_of is not None:
            return self._field_of[site]
        return site if self.level == "site" else f"{site}:{person}"

    @property
    def words(self) -> str:
        """The fields, for a reason."""
        return ", ".join(dict.fromkeys((self._field_of or {}).values()))


def read_site_choice(options: Mapping[str, str]) -> SiteChoice:
    """Return what the options `fields` and `client` ask for.

    Raises:
        SourceError: if a field is unknown, a site is no host name or in two fields, or fields are clients and none is
            named.

    >>> choice = read_site_choice({"fields": "law,brewing:beer.stackexchange.com", "client": "field"})
    >>> choice.takes("money.stackexchange.com"), choice.client_of("beer.stackexchange.com", "7")
    (False, 'brewing')
    >>> read_site_choice({}).client_of("beer.stackexchange.com", "7")
    'beer.stackexchange.com:7'
    """
    level = choice_option(options, "client", CLIENT_LEVELS)
    given = [word.strip() for word in options.get("fields", "").split(",") if word.strip()]
    if not given:
        if level == "field":
            raise SourceError("option client is 'field', and no fields are named; add --set fields=medicine,law")
        return SiteChoice(level, None)
    field_of: dict[str, str] = {}
    for word in given:
        field, colon, hosts = word.partition(":")
        if not _NAME.fullmatch(field):
            raise SourceError(f"option fields names {field[:40]!r}; give a short word in small letters, such as law")
        if not colon and field not in FIELDS:
            raise SourceError(
                f"option fields names {field[:40]!r}; {did_you_mean(field, FIELDS)}the fields are "
                f"{', '.join(FIELDS)}, "
                f"and {field}:HOST+HOST makes one of your own"
            )
        for site in hosts.split("+") if colon else FIELDS[field]:
            if not HOST.fullmatch(site):
                raise SourceError(f"option fields: {site[:40]!r} is no host name such as law.stackexchange.com")
            if field_of.setdefault(site, field) != field:
                raise SourceError(f"option fields: {site} is in {field_of[site]} and in {field}; keep one")
    return SiteChoice(level, field_of)
