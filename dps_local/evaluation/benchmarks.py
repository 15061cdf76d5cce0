"""Tasks of the benchmarks LaMP (arXiv 2304.11406, appendix) and LongLaMP (arXiv 2407.11016), in their words."""

from __future__ import annotations

from dataclasses import replace

from dps_local.evaluation.task import Task

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
    request="Generate a title for the following abstract of a paper: {abstract}",  # the author's own titles
    answer_field="title",
    search_fields=("title", "abstract"),
    query_after="without explanation. ",
    options=("[1]", "[2]"),
)
MOVIE_TAG = Task(
    "LaMP-2",
    "choice",
    request=(
        "Which tag does this movie relate to among the following tags? Just answer with the tag name without further "
        f"explanation. tags: [{TAGS}] description: {{description}}"
    ),
    answer_field="tag",
    search_fields=("description",),
    query_after="description: ",
    options=tuple(TAGS.split(", ")),
    options_in="tags",
)
NEWS_CATEGORY = Task(
    "LaMP-2N",
    "choice",
    request=(
        "Which category does this article relate to among the following categories? Just answer with the category "
        f"name without further explanation. categories: [{CATEGORIES}] article: {{text}}"
    ),
    answer_field="category",
    search_fields=("title", "text"),
    query_after="article: ",
    options=tuple(CATEGORIES.split(", ")),
    options_in="categories",
)
PRODUCT_RATING = Task(
    "LaMP-3",
    "number",
    request=(
        "What is the score of the following review on a scale of 1 to 5? just answer with 1, 2, 3, 4, or 5 without "
        "further explanation. review: {text}"
    ),
    answer_field="score",
    search_fields=("text",),
    query_after="review: ",
    options=("1", "2", "3", "4", "5"),
    scale=(1, 5),
)
HEADLINE = Task(
    "LaMP-4",
    "text",
    request="Generate a headline for the following article: {text}",
    answer_field="title",
    search_fields=("title", "text"),
    query_after="article: ",
)
PAPER_TITLE = Task(
    "LaMP-5",
    "text",
    request="Generate a title for the following abstract of a paper: {abstract}",
    answer_field="title",
    search_fields=("title", "abstract"),
    query_after="paper: ",
)
EMAIL_SUBJECT = Task(
    "LaMP-6",
    "text",
    request="Generate a subject for the following email: {text}",
    answer_field="title",
    search_fields=("text",),
    query_after="email: ",
)
TWEET = Task(
    "LaMP-7",
    "text",
    answer_field="text",
    search_fields=("text",),
    query_after=": ",
)
LONG_EMAIL = replace(
    EMAIL_SUBJECT,
    name="LongLaMP-email",
    request='Generate an email with the title "{title}"',  # whose mails and words are not public
    answer_field="text",
    query_after="",
)
LONG_ABSTRACT = Task(
    "LongLaMP-abstract",
    "text",
    request='Generate an abstract for the title "{title}"',
    answer_field="abstract",
    search_fields=("title", "abstract"),
)
LONG_REVIEW = Task(
    "LongLaMP-review",
    "text",
    request=(  # as it is in LongLaMP, word for word
        'Generate the review text written by a reviewer who has a given an overall rating of "{overall}" for a product '
        'with description "{description}". The summary of the review text is "{summary}".'
    ),
    answer_field="reviewText",
    search_fields=("overall", "summary", "description", "reviewText"),
)
LONG_TOPIC = Task(
    "LongLaMP-topic",
    "text",
    request="Generate the content for a reddit post {summary}",
    answer_field="content",
    search_fields=("summary", "content"),
    query_after="reddit post ",
)
MOVIE_RATING = replace(
    PRODUCT_RATING,
    name="movie_rating",
    request="What is the rating of the following movie review on a scale of 0 to 1? review: {text}",
    answer_field="rating",
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
