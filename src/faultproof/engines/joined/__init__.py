"""Transactions that users opened on connections of their own: one module for each library that they came with.

Nothing here is imported before the user has imported the library.
"""
