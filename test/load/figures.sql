-- What the sessions have done.
\pset footer off
\pset border 1
SELECT kind, count(*) AS asked, count(*) FILTER (WHERE told) AS succeeded,
	count(*) FILTER (WHERE NOT told) AS "failed or cancelled",
	count(*) FILTER (WHERE told IS NULL) AS abandoned
FROM load.told GROUP BY GROUPING SETS (kind, ()) ORDER BY kind;
