"""The databases and brokers that faultproof runs on: other people's, each behind the ports."""
