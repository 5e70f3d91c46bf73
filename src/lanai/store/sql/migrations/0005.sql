-- Why lines waited before: the last few reasons of each, the present one among them.

CREATE TABLE reason_past (
    batch INTEGER NOT NULL,
    shape INTEGER NOT NULL,
    since_us INTEGER NOT NULL,
    code TEXT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (batch, shape, since_us)
) WITHOUT ROWID;
