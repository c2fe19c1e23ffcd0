"""Sentences of a folder, as words and characters.

The folder has `positive.txt` and `negative.txt`, a sentence a line, as in Pang and
Lee's sentence polarity data.
"""

from __future__ import annotations

import collections
import functools

import numpy as np

LENGTH = 32  # tokens a sequence
CHARACTERS = 48  # of a vocabulary
PREDICTED = 500  # words of a vocabulary that is predicted
KNOWN = 2000  # words of one that is only read
PAD, OTHER = range(2)  # before the words
TESTED = {"sentences": 2000, "windows": 1000}


@functools.cache
def sentences(folder):
    """Lists of words and whether they praise, shuffled."""
    lines = [
        (line.split(), label)
        for label, name in enumerate(("negative.txt", "positive.txt"))
        for line in (folder / name).read_text(encoding="utf-8").splitlines()
    ]
    order = np.random.default_rng(0).permutation(len(lines))
    return [lines[i] for i in order]


def vocabulary(folder, size, other=OTHER):
    """The ids of the commonest words; those up to that of all others come first."""
    counts = collections.Counter(
        word for words, _ in sentences(folder) for word in words
    )
    commonest = counts.most_common(size - other - 1)
    return {word: other + 1 + i for i, (word, _) in enumerate(commonest)}


@functools.cache
def polarity(folder):
    """Words of sentences, zeros behind them, and whether they praise.

    Of a small folder a fifth is tested.
    """
    ids = vocabulary(folder, KNOWN)
    x = np.full((len(sentences(folder)), LENGTH), PAD, "int32")
    for row, (words, _) in zip(x, sentences(folder), strict=True):
        known = [ids.get(word, OTHER) for word in words[:LENGTH]]
        row[: len(known)] = known
    y = np.array([label for _, label in sentences(folder)], "int32")
    cut = len(x) - min(TESTED["sentences"], len(x) // 5)
    return (x[:cut], y[:cut]), (x[cut:], y[cut:])


@functools.cache
def characters(folder, rows):
    """Windows of characters of the joined sentences, and what follows each."""
    text = "\n".join(" ".join(words) for words, _ in sentences(folder))
    commonest = collections.Counter(text).most_common(CHARACTERS - 1)
    ids = {character: i for i, (character, _) in enumerate(commonest)}
    return windows([ids.get(one, CHARACTERS - 1) for one in text], rows)


@functools.cache
def words(folder, rows):
    """Windows of words of the joined sentences, and what follows each."""
    return windows(stream_of_words(folder), rows)


def stream_of_words(folder, other=OTHER):
    """The ids of the words of all sentences, a full stop behind each."""
    ids = vocabulary(folder, PREDICTED, other)
    return [
        ids.get(word, other) for words, _ in sentences(folder) for word in [*words, "."]
    ]


def windows(ids, rows):
    """At most so many windows to train on, spread over the text, and the last to test.

    Of a short text a fifth is tested.
    """
    count = len(ids) // (LENGTH + 1)
    found = np.array(ids[: count * (LENGTH + 1)], "int32").reshape(count, -1)
    cut = count - min(TESTED["windows"], count // 5)
    order = np.random.default_rng(0).permutation(cut)[:rows]
    return tuple((part[:, :-1], part[:, 1:]) for part in (found[order], found[cut:]))
