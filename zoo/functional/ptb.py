"""The tokens of COCO's caption evaluation: lower-cased, without punctuation.

They are those of the PTBTokenizer of Stanford's CoreNLP 3.4.1, called with ``-lowerCase -preserveLines``, without the
punctuation that the evaluation then drops: ``a man's dog doesn't`` is ``a man 's dog does n't``. Brackets stay, as
``-lrb-`` and ``-rrb-``: the evaluation drops ``-LRB-``, but the tokens are lower case by then. Written anew from the
tokenizer's behaviour; of sentences as people write them the tokens are the same. Telephone numbers, smileys and mark-up
may be cut in other places.
"""

from __future__ import annotations

import re
import unicodedata

_DROPPED = re.compile(r"""['"`]+|\.+|-+|[?!,:;]""")

_PLAIN = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛´\x92", "'"),
        **dict.fromkeys("“”„«»", '"'),
        **dict.fromkeys("–—―", " -- "),
        **dict.fromkeys("\u200b\ufeff", " "),
        "\xad": "",
        **{fraction: f" {fraction} " for fraction in "½¼¾"},
        "…": " ... ",
        "€": "$",
        "£": "#",
    }
)
_ENTITIES = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'", "&nbsp;": " ", "&amp;": "&"}
_WRITTEN = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_WRITTEN |= {"½": "1/2", "¼": "1/4", "¾": "3/4", "¢": "cents"}

# Abbreviations keep their full stop: these in any case, …
_ABBREVIATIONS = r"""
    jan | feb | mar | apr | jun | jul | aug | sept? | oct | nov | dec | mon | tue | tues | wed | thu | thurs | fri |
    ala | ariz | calif | colo | conn | ct | dak | fla | ga | ind | kans? | ky | md | mich | minn | mo | mont | neb |
    nev | okla | penn | tenn | va | vt | wisc? | wyo | mr | mrs | ms | drs? | profs? | sens? | reps? | atty | lt |
    col | gen | messrs | govs? | adm | rev | maj | sgt | cpl | pvt | capt | ste? | ave | pres | lieut | hon | brig |
    cmdr | comdr | pfc | spc | supt | det | mt | ft | adj | adv | asst | assoc | ens | insp | mlle | mme | msgr |
    sfc | inc | cos? | corp | ltd | plc | bancorp | dept | bldg | assn | univ | intl | natl | sys | [js]r | bros |
    blvd | rd | esq | ph | tel | est | ext | sq | vs | alex | wm | jos | cie | cf | etc | al | seq | ph\.d |
    (?:[a-z]\.)+[a-z]
"""
# … these as names, these before a number, and a letter unless a word follows that often opens a sentence.
_NAMES = "Ark | Del | Ill | La | Mass | Miss | Ore | Pa | Tex | Wash"
_NUMBERED = "nos? | prop | pp | figs? | ca | op"
_OPENING = """
    The | There | He | She | It | A | An | In | At | Then | This | That | These | But | You | We | They | Their |
    Her | As | When | Some | One | What | After | If | So | Many
"""

# Letters, digits and the marks of scripts that write vowels so.
_MARKS = "".join(chr(i) for i in range(0x300, 0xFFFF) if unicodedata.category(chr(i))[0] == "M")
_W = rf"[\w{_MARKS}]"
_ENDINGS = r"(?: n't | '(?: s | m | d | ll | re | ve ) )"
_TOKEN = re.compile(
    rf"""
    (?: https?:// | www\. ) [^\s"<>|()]+ [^\s"<>|().,;:!?'-]
  | [\w.+-]+ @ \w[\w-]* (?: \.[\w-]+ )+
  | [@\#] [A-Za-z_]\w*
  | (?i: (?: {_ABBREVIATIONS} ) \. ) (?!\w)
  | (?: {_NAMES} ) \. (?!\w)
  | (?i: {_NUMBERED} ) \. (?= \s*[\d,] )
  | [A-Za-z] \. (?!\w) (?! \s+ (?: {_OPENING} ) \b )
  | (?i: can(?=not) | gon(?=na) | got(?=ta) | lem(?=me) | gim(?=me) | wan(?=na) ) (?= \w\w\w? (?![\w'-]) )
  | (?i: 't(?= is\b | was\b ) | 'n' | '(?: n | em | til | cause ) (?!\w) )
  | (?i: {_ENDINGS} ) (?!\w)
  | \d+ [ ] \d+/\d+
  | \d+ (?: [.,:] \d+ )+ (?![.,:]?\d)
  | '\d\ds? (?![\w"'])
  | [.:] \d+
  | [A-Z]+ & [A-Z]+ \b
  | (?i: [dljo]'{_W}+? | o'clock | ma'am | cap'n | n?e'er | o'er ) (?= {_ENDINGS}? (?!{_W}) )
  | {_W}+? (?= (?i: {_ENDINGS} (?!\w) | 'n' | 'n(?!\w) ) ) | [Yy]' (?=all\b)
  | {_W}+ (?: [-./!?]{_W}+ )*? (?= (?i: {_ENDINGS} ) (?!\w) | (?! [-./!?]?{_W} ) )
  | \.+ | -+ | [?!]+ | ['"`]+
  | \S
    """,
    re.VERBOSE,
)


def ptb_tokens(text: str) -> list[str]:
    """The tokens that the evaluation compares.

    Args:
        text: a caption as it was written; line breaks are spaces.
    """
    for entity, meant in _ENTITIES.items():
        text = text.replace(entity, meant)
    found = (match.group().lower() for match in _TOKEN.finditer(text.translate(_PLAIN)))
    kept = (token.replace(" ", "\xa0") for token in found if not _DROPPED.fullmatch(token))
    return [_WRITTEN.get(token, token) for token in kept if ord(max(token)) < 0x10000]
