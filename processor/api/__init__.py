"""The HTTP side: events, ingest, the live stream, filters, merges, audit.  `app` puts it together, `server` runs it.

Handlers are thin: who asks is settled by `auth`, what went wrong is told by `errors`, everything else is `processor.io`'s.
"""
