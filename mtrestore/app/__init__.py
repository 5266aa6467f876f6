"""A page in the browser for those who have no notebook: `mtrestore app`.

asked: what the page wants of one photo. work: one photo, in a worker process. desk: the photos of
a session, one worked on at a time. server: who may ask, and for what. The page itself is app.html,
app.css and app.js among the assets.

May be touched: the page and its words; who may ask (server) only with its test.
"""
