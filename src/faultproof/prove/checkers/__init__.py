"""Judging what was recorded: histories of calls and answers, and the rows that are left; no database, no clock of ours."""
