"""What the studies of language models share: a text in bytes, training on it, measuring, sampling.

A run writes into a folder. Started again with the same options, it goes on where it was interrupted.
"""

from language.options import Corpus as Corpus, Training as Training, begin as begin
from language.training import Subject as Subject, run as run

BYTES = 256
