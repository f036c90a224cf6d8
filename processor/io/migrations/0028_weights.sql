-- compatible: 5
-- What the conditions of a metadata filter take in every worker, bytes; never less than their JSON.  Null: they were written by a program
-- from before, which weighs nothing; such a program leaves a weight that is there as it is.
ALTER TABLE filters ADD COLUMN weight integer;
