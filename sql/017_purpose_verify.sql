-- A rollout over a table that an earlier one has completed: the trigger is on when it begins, and stays on. rotate: rows
-- move from one key to the next besides. encrypt: the rollout switches the trigger on itself, and its rollback off.

alter table encryption_rollout.runs
  drop constraint runs_purpose_check,
  add constraint runs_purpose_check check (purpose in ('encrypt', 'rotate', 'verify'));
