-- The account that a batch is charged to; of those of older versions not known until it is set.

ALTER TABLE batch ADD COLUMN account TEXT NOT NULL DEFAULT '';
