"""What `text_to_digits` is told: names of colors and where they lie, digits in two forms, and wordings in three sets that share none."""
import re

import torch
from torch import Tensor

from iin_nb.core import generator

COLORS = {   # centre of each name in [0, 1]³; our choice, kept off the faces of the cube, where the noise would be cut
    "red": (0.88, 0.12, 0.12), "orange": (0.88, 0.50, 0.12), "yellow": (0.88, 0.86, 0.14), "green": (0.14, 0.66, 0.20),
    "cyan": (0.14, 0.80, 0.86), "blue": (0.14, 0.22, 0.88), "purple": (0.50, 0.14, 0.70), "magenta": (0.88, 0.14, 0.84),
    "pink": (0.88, 0.56, 0.70), "brown": (0.50, 0.30, 0.12), "gray": (0.50, 0.50, 0.50), "white": (0.88, 0.88, 0.88)}
SPREAD = 0.04   # std of a color around the centre of its name, each channel
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

LEARN = """
a {c} {d}
the {c} {d}
a {d} in {c}
{c} {d}
{d} in {c}
{d}, {c}
{c}, {d}
a {c} digit {d}
the digit {d} in {c}
the digit {d}, written in {c}
a {c} number {d}
the number {d} in {c}
number {d}, colored {c}
a {d} written in {c}
a {d} drawn in {c}
a {d} painted {c}
a {d} written with a {c} pen
a {d} drawn with a {c} pencil
a handwritten {c} {d}
a handwritten {d} in {c} ink
a picture of a {c} {d}
an image of a {c} {d}
a photo of the number {d} in {c}
a drawing of a {d} in {c}
a sketch of the digit {d} in {c}
a {d} that is {c}
a {d} whose color is {c}
a {d} with {c} strokes
a {c} stroke that forms a {d}
the color is {c} and the digit is {d}
the digit is {d} and its color is {c}
digit: {d}, color: {c}
color: {c}, digit: {d}
color {c}, number {d}
{c} color, {d} shape
it is a {c} {d}
this is a {c} {d}
this is the number {d}, in {c}
this {d} is {c}
the {d} is {c}
here is a {d} in {c}
here we see a {c} {d}
I see a {c} {d}
I want a {c} {d}
I would like a {d} in {c}, please
please draw a {c} {d}
draw the number {d} in {c}
write {d} in {c}
write a {d} with {c} ink
paint a {d} and make it {c}
make me a {c} {d}
give me a {d} in {c}
show me a {c} {d}
show the digit {d} with {c} strokes
can you write a {d} in {c}?
could you paint the number {d} {c}?
she wrote a {c} {d}
he painted a {d} in {c}
they drew the number {d} with {c} chalk
somebody has written {d} in {c}
the child drew a {c} {d} on paper
the teacher wrote a {d} in {c} on the board
on the wall there is a {c} {d}
there is a {d} on the page, and it is {c}
there is a {c} number, a {d}
the page shows the digit {d} in {c}
a sign with a {c} {d} on it
a {c} {d} on a card
a card that says {d} in {c} letters
a bold {c} {d}
a thin {c} {d}
a slanted {d} in {c}
a small {c} numeral {d}
a large numeral {d}, colored in {c}
the numeral {d} in {c} paint
the figure {d} in {c}
a figure {d}, and the figure is {c}
{c} is the color of this {d}
{c} ink on paper, showing {d}
{c} paint, and the number is {d}
{c} numeral, value {d}
value {d}, hue {c}
hue {c}, value {d}
something {c} that reads {d}
a {c} thing in the form of a {d}
in {c}, the number {d}
in {c} ink: {d}
using {c}, write down a {d}
with a {c} brush I wrote {d}
my favorite number is {d} and my favorite color is {c}
the number {d} looks nice in {c}
the {d} has a {c} color
the {d} was painted {c}
the number {d} has been colored {c}
what you see is a {d} in {c}
you are looking at a {c} {d}
imagine a {d} that someone painted {c}
a {c} mark which means {d}
a house number {d} painted in {c}
the jersey has a {c} {d}
"""

STOP = """
the strokes are {c}, the digit they make is a {d}
take a {c} marker and put down the number {d}
a {d}, the color of which somebody chose to be {c}
let the number be {d} and let the ink be {c}
{d} is what it says, {c} is how it looks
we need the figure {d} done in {c}
every line of this handwritten {d} is {c}
that {c} character is the digit {d}
scribbled in {c}: the number {d}
a scan of somebody's {d}, penned in {c}
it reads {d} and the pen was {c}
my daughter made a {d} out of {c} crayon
"""

TEST = """
the cake was decorated with a {d} in {c} icing
whoever wrote this {d} had only a {c} crayon
what is written there is the number {d}, and the writing is {c}
dipped in {c}, the brush left a {d} behind
{c} is the ink that was used for the numeral {d}
nothing but a {d}, all of it {c}
the answer is {d}; print it in {c}
in the middle of the poster stands a big {c} {d}
if you had to write {d} and could only use {c}, it would look like this
a {d} as {c} as it gets
the runner wore the number {d}, which was {c}
between the lines someone left a {d}, its strokes {c}
"""

LEARN, STOP, TEST = (tuple(t.strip().splitlines()) for t in (LEARN, STOP, TEST))


def sentence(wording: str, digit: int, color: str, numeral: bool) -> str:
    "One sentence: the digit as a numeral or as a word, a or an as it should be."
    said = wording.format(c=color, d=str(digit) if numeral else DIGITS[digit])
    return re.sub(r"\ba(?= (orange|eight|8)\b)", "an", said)


def sentences(wordings: tuple[str, ...], colors: tuple[str, ...], seed: int) -> list[str]:
    "One sentence for each wording, digit and color, in this order; half of the digits as numerals, by chance."
    coin = torch.rand(len(wordings), 10, len(colors), generator=generator(seed)) < 0.5
    return [sentence(w, d, c, bool(coin[i, d, k])) for i, w in enumerate(wordings) for d in range(10) for k, c in enumerate(colors)]


def around(names: Tensor, centres: Tensor, g: torch.Generator) -> Tensor:
    "Colors (N, 3) in [0, 1] for color names (N,): N(centre, SPREAD²), cut at the cube's faces."
    return (centres[names] + SPREAD * torch.randn(len(names), 3, generator=g)).clamp(0, 1)
