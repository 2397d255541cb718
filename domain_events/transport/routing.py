"""Whom a topic exchange gives an event. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence

MOST_SUGGESTIONS = 3

_SIMILAR = 0.6  # of difflib: halfway to the same
_MOST_KEYS = 5_000
"""That are compared with: those of a broker are other people's, and may be many."""


def matches(binding_key: str, routing_key: str) -> bool:
    """Whether an event with `routing_key` comes to a queue that is bound with `binding_key`.

    As RabbitMQ's topic exchange: words are what stands between dots and may be empty, an empty key has none; `*` is one
    word, `#` any number of them, also none, and both are plain characters when they stand in a word with others.
    """
    words = _words(routing_key)
    used = {0}  # how many of the words the binding key's words so far may have used up
    for word in _words(binding_key):
        if word == "#":
            used = set(range(min(used), len(words) + 1))
        else:
            used = {n + 1 for n in used if n < len(words) and word in ("*", words[n])}
        if not used:
            return False
    return len(words) in used


def is_catch_all(binding_key: str) -> bool:
    """Whether it names no word: who listens to everything does not tell that a routing key exists."""
    return {"*", "#"}.issuperset(_words(binding_key))


def suggestions(routing_key: str, binding_keys: Iterable[str]) -> list[str]:
    """Routing keys that look like this one, which nobody asks for, and that somebody does. The most similar first.

    Of very many binding keys the first ones are looked at.
    """
    keys = [key for key in dict.fromkeys(binding_keys) if not is_catch_all(key)][:_MOST_KEYS]
    known = [key for key in keys if not {"*", "#"} & set(_words(key))]
    candidates = dict.fromkeys(_similar(routing_key, known))
    candidates |= dict.fromkeys(key for key in _with_another_word(routing_key, keys) if _is_bound(key, keys))
    candidates.pop(routing_key, None)
    return sorted(candidates, key=lambda key: -_similarity(routing_key, key))[:MOST_SUGGESTIONS]


def _with_another_word(routing_key: str, binding_keys: Sequence[str]) -> Iterator[str]:
    known = list(dict.fromkeys(word for key in binding_keys for word in _words(key) if word not in ("*", "#")))
    words = _words(routing_key)
    for place, word in enumerate(words):
        for other in _similar(word, known):
            yield ".".join([*words[:place], other, *words[place + 1 :]])


def _is_bound(routing_key: str, binding_keys: Iterable[str]) -> bool:
    return any(matches(key, routing_key) for key in binding_keys)


def _similar(text: str, known: Sequence[str]) -> list[str]:
    # Case is often what is wrong.
    folded: dict[str, str] = {}
    for each in known:
        folded.setdefault(each.casefold(), each)
    return [folded[each] for each in difflib.get_close_matches(text.casefold(), folded, MOST_SUGGESTIONS, _SIMILAR)]


def _similarity(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one.casefold(), other.casefold()).ratio()


def _words(key: str) -> list[str]:
    return key.split(".") if key else []
