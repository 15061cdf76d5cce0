"""Evaluation of steering on LaMP, LongLaMP and data of the same form."""
