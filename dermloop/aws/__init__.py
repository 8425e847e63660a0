"""dermloop on AWS: one stack as code, and the jobs that run in it."""
