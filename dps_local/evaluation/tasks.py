"""`Task`: how profile items of a benchmark stand in a prompt and are scored on, and how its answers are measured.

Wordings are those of LaMP (arXiv 2304.11406, appendix) and LongLaMP (arXiv 2407.11016).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from string import Formatter
from typing import Literal

Kind = Literal["text", "choice", "number"]  # ROUGE and METEOR; accuracy and macro-F1; MAE and RMSE


@dataclass(frozen=True)
class Task:
    """A task as data: {name} stands for a field of a profile item.

    phrase: an item in a prompt; long: the field of it that may be cut. request, answer: what an item was written for
    ("" where nobody knows), and the field that was written. words: the fields that BM25 searches, with the part of a
    query's input that follows query_after. join: items and a query's input; inside: items go before this part of the
    input, where it has it. options_in: the word before the list of options in an input. scale: the ends of a number's.
    """

    name: str
    kind: Kind
    phrase: str = ""
    long: str = ""
    request: str = ""
    answer: str = ""
    words: tuple[str, ...] = ()
    query_after: str = ""
    join: str = "{items}. {input}"
    inside: str = ""
    options: tuple[str, ...] = ()
    options_in: str = ""
    scale: tuple[float, float] | None = None

    @property
    def fields(self) -> list[str]:
        """The fields that a profile item needs."""
        in_templates = [name for _, name, _, _ in Formatter().parse(self.phrase + self.request) if name]
        return sorted({*in_templates, *self.words, *([self.answer] if self.answer else [])})

    def request_of(self, item: Mapping[str, str]) -> str:
        """Return the input of the same task that an item answers."""
        return self.request.format(**item)

    def searched(self, item: Mapping[str, str]) -> str:
        """Return the words of an item that retrieval compares with a query's."""
        return " ".join(item[field] for field in self.words)

    def query(self, text: str) -> str:
        """Return the words of an input that retrieval looks for: without its fixed beginning, where it has one."""
        return text.partition(self.query_after)[2] or text if self.query_after else text

    def prompt(self, phrases: Sequence[str], text: str) -> str:
        """Return an input together with the phrases of items."""
        items = ", and ".join(phrases)
        if self.inside and self.inside in text:
            before, marker, after = text.partition(self.inside)
            return f"{before}, and {items}{marker}{after}"
        return self.join.format(items=items, input=text)

    def options_of(self, text: str) -> tuple[str, ...]:
        """Return the options that an input lists, or those of the task."""
        listed = re.search(rf"\b{self.options_in}: \[([^]]+)\]", text) if self.options_in else None
        return tuple(option.strip() for option in listed[1].split(",")) if listed else self.options


TAGS = (
    "sci-fi, based on a book, comedy, action, twist ending, dystopia, dark comedy, classic, psychology, fantasy, "
    "romance, thought-provoking, social commentary, violence, true story"
)
CATEGORIES = (
    "women, religion, politics, style & beauty, entertainment, culture & arts, sports, science & technology, travel, "
    "business, crime, education, healthy living, parents, food & drink"
)
CITATION = Task(
    "LaMP-1",
    "choice",
    phrase='"{title}"',
    long="title",
    request="Generate a title for the following abstract of a paper: {abstract}",  # the author's own titles
    answer="title",
    words=("title", "abstract"),
    query_after="without explanation. ",
    inside=", which reference is related",
    options=("[1]", "[2]"),
)
MOVIE_TAG = Task(
    "LaMP-2",
    "choice",
    phrase='the tag for the movie: "{description}" is "{tag}"',
    long="description",
    request=(
        "Which tag does this movie relate to among the following tags? Just answer with the tag name without further "
        f"explanation. tags: [{TAGS}] description: {{description}}"
    ),
    answer="tag",
    words=("description",),
    query_after="description: ",
    options=tuple(TAGS.split(", ")),
    options_in="tags",
)
NEWS_CATEGORY = Task(
    "LaMP-2N",
    "choice",
    phrase='the category for the article: "{text}" is "{category}"',
    long="text",
    request=(
        "Which category does this article relate to among the following categories? Just answer with the category "
        f"name without further explanation. categories: [{CATEGORIES}] article: {{text}}"
    ),
    answer="category",
    words=("title", "text"),
    query_after="article: ",
    options=tuple(CATEGORIES.split(", ")),
    options_in="categories",
)
PRODUCT_RATING = Task(
    "LaMP-3",
    "number",
    phrase='{score} is the score for "{text}"',
    long="text",
    request=(
        "What is the score of the following review on a scale of 1 to 5? just answer with 1, 2, 3, 4, or 5 without "
        "further explanation. review: {text}"
    ),
    answer="score",
    words=("text",),
    query_after="review: ",
    options=("1", "2", "3", "4", "5"),
    scale=(1, 5),
)
HEADLINE = Task(
    "LaMP-4",
    "text",
    phrase='"{title}" is the title for "{text}"',
    long="text",
    request="Generate a headline for the following article: {text}",
    answer="title",
    words=("title", "text"),
    query_after="article: ",
)
PAPER_TITLE = Task(
    "LaMP-5",
    "text",
    phrase='"{title}" is the title for "{abstract}"',
    long="abstract",
    request="Generate a title for the following abstract of a paper: {abstract}",
    answer="title",
    words=("title", "abstract"),
    query_after="paper: ",
    join="{items}. Following the given patterns {input}",
)
EMAIL_SUBJECT = Task(
    "LaMP-6",
    "text",
    phrase='"{title}" is the title for "{text}"',
    long="text",
    request="Generate a subject for the following email: {text}",
    answer="title",
    words=("text",),
    query_after="email: ",
)
TWEET = Task(
    "LaMP-7",
    "text",
    phrase='"{text}"',
    long="text",
    answer="text",
    words=("text",),
    query_after=": ",
    join="{items} are written by a person. Following the given patterns {input}",
)
LONG_EMAIL = replace(EMAIL_SUBJECT, name="LongLaMP-email", request="", answer="text", query_after="")
LONG_ABSTRACT = Task(
    "LongLaMP-abstract",
    "text",
    phrase='"{abstract}" is the abstract for the title "{title}"',
    long="abstract",
    request='Generate an abstract for the title "{title}"',
    answer="abstract",
    words=("title", "abstract"),
    join=("{items}. Use the above abstracts as context to understand the style and language of the user and, {input}"),
)
LONG_REVIEW = Task(
    "LongLaMP-review",
    "text",
    phrase=(
        '"{overall}" is a rating for the product with description "{description}". '
        '"{summary}" is summary for "{reviewText}"'
    ),
    long="reviewText",
    request=(  # as it is in LongLaMP, word for word
        'Generate the review text written by a reviewer who has a given an overall rating of "{overall}" for a product '
        'with description "{description}". The summary of the review text is "{summary}".'
    ),
    answer="reviewText",
    words=("overall", "summary", "description", "reviewText"),
    join="{items}. Following the given patterns {input}",
)
LONG_TOPIC = Task(
    "LongLaMP-topic",
    "text",
    phrase='"{summary}" is a summary for "{content}"',
    long="content",
    request="Generate the content for a reddit post {summary}",
    answer="content",
    words=("summary", "content"),
    query_after="reddit post ",
    join="{items}. Following the given patterns, {input}",
)
MOVIE_RATING = replace(
    PRODUCT_RATING,
    name="movie_rating",
    phrase='{rating} is the score for "{text}"',
    request="What is the rating of the following movie review on a scale of 0 to 1? review: {text}",
    answer="rating",
    options=tuple(str(tenths / 10) for tenths in range(1, 11)),
    scale=(0, 1),
)
PREFERENCE_FOLLOWING = Task("preference_following", "choice")  # the user's preferences, and options with each query
TASKS = {
    task.name: task
    for task in (
        CITATION,
        MOVIE_TAG,
        NEWS_CATEGORY,
        PRODUCT_RATING,
        HEADLINE,
        PAPER_TITLE,
        EMAIL_SUBJECT,
        TWEET,
        LONG_EMAIL,
        LONG_ABSTRACT,
        LONG_REVIEW,
        LONG_TOPIC,
        replace(HEADLINE, name="news_headline"),
        replace(EMAIL_SUBJECT, name="email_subject"),
        MOVIE_RATING,
        PREFERENCE_FOLLOWING,
    )
}
