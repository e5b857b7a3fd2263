"""MediaWiki's XML dumps: the stream, the pages in it, their wikitext as plain text."""

from __future__ import annotations
