"""The tokens of COCO's evaluation. What is expected was written out by hand, and is what its Java program printed."""

import pytest

from zoo.functional.ptb import ptb_tokens

EXPECTED = {
    # As captions are
    "A man riding a wave on top of a surfboard.": "a man riding a wave on top of a surfboard",
    "Two dogs, one frisbee; a park!": "two dogs one frisbee a park",
    "Man, woman & child -- all smiling!": "man woman & child all smiling",
    "  a   cat\tsits \n on it ": "a cat sits on it",
    "What is this? A dog.": "what is this a dog",
    "An ellipsis… and another ...": "an ellipsis and another",
    "A train at the station.A man waits": "a train at the station.a man waits",
    # Contractions and possessives
    "A man's dog doesn't like the girls' toys.": "a man 's dog does n't like the girls toys",
    "It's a sign they can't read, I'm sure you'll agree.": "it 's a sign they ca n't read i 'm sure you 'll agree",
    "DON'T we've who'd they're O'Brien's": "do n't we 've who 'd they 're o'brien 's",
    "it’s the dog’s": "it 's the dog 's",
    "They cannot stay, gonna wanna gotta gimme": "they can not stay gon na wan na got ta gim me",
    "'tis five o'clock, ma'am": "'t is five o'clock ma'am",
    "rock 'n' roll, more'n 'em": "rock 'n' roll more 'n 'em",
    "y'all boys'toys": "y' all boys toys",
    # Quotes and brackets
    "The \"stop\" sign reads 'No Parking'.": "the stop sign reads no parking",
    "“curly” ‘quotes’ ``and'' `these'": "curly quotes and these",
    "a man (in a hat) [left] {right}": "a man -lrb- in a hat -rrb- -lsb- left -rsb- -lcb- right -rcb-",
    # Hyphens, slashes, signs
    "A 3-year-old in a T-shirt - red": "a 3-year-old in a t-shirt red",
    "jack-o'-lantern -flying- by": "jack-o lantern flying by",
    "bed/couch and/or w/ w/o": "bed/couch and/or w / w/o",
    "$5 or 50% off #1 #yum @me": "$ 5 or 50 % off # 1 #yum @me",
    "€5 £3 5¢ 20°C": "$ 5 # 3 5 cents 20 ° c",
    "salt&pepper AT&T R&B": "salt & pepper at&t r&b",
    "en – em — a--b": "en em a b",
    "wow!!! what??": "wow !!! what ??",
    # Numbers
    "1,000 3.5 10:30 24/7 2nd 1950s 4x4 747-400": "1,000 3.5 10:30 24/7 2nd 1950s 4x4 747-400",
    "at 5:30pm or 5pm, 5.5cm": "at 5:30 pm or 5pm 5.5 cm",
    "2 1/2 cups, 3½ cups": "2\xa01/2 cups 3 1/2 cups",
    "'57 chevy of the 1950's and '60s": "'57 chevy of the 1950 's and '60s",
    "a 5'10\" man": "a 5 10 man",
    # Abbreviations
    "Mr. Smith and Dr. Jones on Main St. near 5th Ave.": "mr. smith and dr. jones on main st. near 5th ave.",
    "the u.s. flag at 10 a.m. in Washington, D.C.": "the u.s. flag at 10 a.m. in washington d.c.",
    "no. 5 is not a no. There": "no. 5 is not a no there",
    "In Mass. a mass. of Vitamin C. and plan B. The": "in mass. a mass of vitamin c. and plan b the",
    "J. R. Smith vs. me, etc.": "j. r. smith vs. me etc.",
    # The world
    "Ålesund’s café, ÜBER niño": "ålesund 's café über niño",
    "हिन्दी, עברית العربية, 中文,a": "हिन्दी עברית العربية 中文 a",
    "a😀b ♥ ™": "a b ♥ ™",
    "http://www.x.com/a?b=c. me@x.com.": "http://www.x.com/a?b=c me@x.com",
    "&lt;&amp;&quot;x&quot;": "< & x",
    "": "",
    " . ... ": "",
}


@pytest.mark.parametrize("text", EXPECTED)
def test_tokens_are_the_evaluations(text: str) -> None:
    assert ptb_tokens(text) == [token for token in EXPECTED[text].split(" ") if token]


def test_tokens_of_plain_words_are_these_words() -> None:
    text = "a green square is to the left of the red three"
    assert ptb_tokens(text) == ptb_tokens(text.upper() + " .") == text.split()


def test_a_long_text_takes_no_longer_than_its_length() -> None:
    for text in (
        "a-" * 50_000,
        "'" * 50_000,
        "a" * 50_000,
        "n't" * 20_000,
        "1:" * 50_000,
        "x." * 50_000,
        "www." * 9_999,
    ):
        ptb_tokens(text)
