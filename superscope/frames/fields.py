"""Arithmetic of finite fields, as far as constructions of frames need it."""

from __future__ import annotations

import itertools

import numpy as np


def prime_power(q: int) -> tuple[int, int] | None:
    """(p, m) with q = p^m, or None."""
    for p in range(2, q + 1):
        if q % p == 0:
            m = 0
            while q % p == 0:
                q, m = q // p, m + 1
            return (p, m) if q == 1 else None
    return None


def multiplication(p: int, m: int) -> np.ndarray:
    """Table of products of GF(p^m); element a stands for the polynomial of its digits in base p, so sums are
    digitwise."""
    q = p**m
    digits = np.array([[(a // p**i) % p for i in range(m)] for a in range(q)])
    for tail in itertools.product(range(p), repeat=m):
        reducer = np.array([(-c) % p for c in tail])  # x^m = -(c_0 + c_1 x + ...)
        table = _products(digits, reducer, p)
        # A field has no zero divisors: every row but that of 0 then permutes the elements.
        if all(len(set(row)) == q for row in table[1:]):
            return table
    raise AssertionError(f"no irreducible polynomial of degree {m} modulo {p}")


def addition(p: int, m: int, sign: int = 1) -> np.ndarray:
    """Table of a + sign b in GF(p^m)."""
    q = p**m
    weights = p ** np.arange(m)
    digits = (np.arange(q)[:, None] // weights) % p
    return ((digits[:, None, :] + sign * digits[None, :, :]) % p) @ weights


def trace_bits(m: int) -> tuple[np.ndarray, np.ndarray]:
    """The multiplication table of GF(2^m) and the absolute trace of each element, a bit."""
    table = multiplication(2, m)
    power, total = np.arange(2**m), np.zeros(2**m, dtype=int)
    for _ in range(m):
        total ^= power  # addition in characteristic 2
        power = table[power, power]
    return table, total


def _products(digits: np.ndarray, reducer: np.ndarray, p: int) -> np.ndarray:
    q, m = digits.shape
    weights = p ** np.arange(m)
    shifted, total = digits.copy(), np.zeros((q, q, m), dtype=int)
    for i in range(m):  # shifted is a x^i
        total += shifted[:, None, :] * digits[None, :, i, None]
        carry = shifted[:, -1:]
        shifted = np.hstack([np.zeros((q, 1), dtype=int), shifted[:, :-1]])
        shifted = (shifted + carry * reducer) % p
    return (total % p) @ weights
