-- Run once, on an empty server: the review's database beside Label Studio's, which POSTGRES_DB makes.
CREATE DATABASE review;
