-- What is too old goes: the batches that ended first are found, and whether another batch has the same environment.

CREATE INDEX batch_ended ON batch (ended_at_us) WHERE state = 'ended';

CREATE INDEX batch_env ON batch (env);

CREATE TABLE pruned (
    batch INTEGER PRIMARY KEY
);
