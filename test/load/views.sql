SELECT count(*), sum(tasks_done) FROM loky.workers;
SELECT count(*), sum(pending) FROM loky.executors;
SELECT count(*) FROM loky.tasks WHERE state = 'running';
