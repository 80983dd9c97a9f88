-- skew_middle.sql - skew.sql with the heavy item as number 1500.

CREATE FUNCTION bench.place() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 1500';
\i :dir/skew.sql
