"""The hash that masks are drawn from, in Python's own integers: what kernels are held against."""


def mixed_slowly(x: int) -> int:
    """SplitMix64's finaliser. Source: Steele et al. 2014."""
    x %= 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)
