-- skew_last.sql - skew.sql with the heavy item as number 3000.

CREATE FUNCTION bench.place() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 3000';
\i :dir/skew.sql
