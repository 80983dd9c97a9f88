SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM loky.workers ORDER BY random() LIMIT 1) x;
