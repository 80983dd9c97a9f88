-- skew_last.sql - skew.sql with the heavy item as number 20000.

CREATE FUNCTION bench.place() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 20000';
\i :dir/skew.sql
