"""The triggers that keep history as it was written, in the words of each database.

They stop accidents and careless scripts; the signatures catch intent (triggers can be dropped by whoever owns the
database). On SQLite the insert guards also close INSERT OR REPLACE, which deletes silently.
"""

import sqlalchemy as sa

_ON_SQLITE = (
    """CREATE TRIGGER events_no_update BEFORE UPDATE ON events
       BEGIN SELECT RAISE(ABORT, 'events are never changed'); END""",
    """CREATE TRIGGER events_no_delete BEFORE DELETE ON events
       BEGIN SELECT RAISE(ABORT, 'events are never deleted'); END""",
    """CREATE TRIGGER events_in_order BEFORE INSERT ON events
       WHEN NEW.seq <> (SELECT COALESCE(MAX(seq), 0) + 1 FROM events)
       BEGIN SELECT RAISE(ABORT, 'events are only appended'); END""",
    """CREATE TRIGGER checkpoints_no_update BEFORE UPDATE ON checkpoints
       BEGIN SELECT RAISE(ABORT, 'checkpoints are never changed'); END""",
    """CREATE TRIGGER checkpoints_no_delete BEFORE DELETE ON checkpoints
       BEGIN SELECT RAISE(ABORT, 'checkpoints are never deleted'); END""",
    """CREATE TRIGGER checkpoints_in_order BEFORE INSERT ON checkpoints
       WHEN NEW.number <> (SELECT COALESCE(MAX(number), 0) + 1 FROM checkpoints)
       BEGIN SELECT RAISE(ABORT, 'checkpoints are only appended'); END""",
    """CREATE TRIGGER payloads_no_update BEFORE UPDATE ON payloads
       BEGIN SELECT RAISE(ABORT, 'payloads are never changed'); END""",
    """CREATE TRIGGER payloads_once BEFORE INSERT ON payloads
       WHEN EXISTS (SELECT 1 FROM payloads WHERE seq = NEW.seq)
       BEGIN SELECT RAISE(ABORT, 'payloads are written once'); END""",
    """CREATE TRIGGER payloads_erase_needs_tombstone BEFORE DELETE ON payloads
       WHEN NOT EXISTS (SELECT 1 FROM events WHERE project = OLD.project
                        AND object = 'event:' || OLD.seq AND action = 'payload.erased')
       BEGIN SELECT RAISE(ABORT, 'a payload is erased only with a tombstone event'); END""",
)

# The class 23000 makes a refused change an IntegrityError, as on SQLite. TRUNCATE fires no trigger for rows.
_ON_POSTGRESQL = (
    """CREATE FUNCTION never_changed() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN
         RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = 'rows of ' || TG_TABLE_NAME || ' never change';
       END $$""",
    """CREATE FUNCTION events_only_appended() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN
         IF NEW.seq <> (SELECT COALESCE(MAX(seq), 0) + 1 FROM events) THEN
           RAISE EXCEPTION 'events are only appended' USING ERRCODE = '23000';
         END IF;
         RETURN NEW;
       END $$""",
    """CREATE FUNCTION checkpoints_only_appended() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN
         IF NEW.number <> (SELECT COALESCE(MAX(number), 0) + 1 FROM checkpoints) THEN
           RAISE EXCEPTION 'checkpoints are only appended' USING ERRCODE = '23000';
         END IF;
         RETURN NEW;
       END $$""",
    """CREATE FUNCTION payload_erased_with_tombstone() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN
         IF NOT EXISTS (SELECT 1 FROM events WHERE project = OLD.project
                        AND object = 'event:' || OLD.seq AND action = 'payload.erased') THEN
           RAISE EXCEPTION 'a payload is erased only with a tombstone event' USING ERRCODE = '23000';
         END IF;
         RETURN OLD;
       END $$""",
    """CREATE TRIGGER events_never BEFORE UPDATE OR DELETE ON events
       FOR EACH ROW EXECUTE FUNCTION never_changed()""",
    """CREATE TRIGGER events_not_emptied BEFORE TRUNCATE ON events
       FOR EACH STATEMENT EXECUTE FUNCTION never_changed()""",
    """CREATE TRIGGER events_in_order BEFORE INSERT ON events
       FOR EACH ROW EXECUTE FUNCTION events_only_appended()""",
    """CREATE TRIGGER checkpoints_never BEFORE UPDATE OR DELETE ON checkpoints
       FOR EACH ROW EXECUTE FUNCTION never_changed()""",
    """CREATE TRIGGER checkpoints_not_emptied BEFORE TRUNCATE ON checkpoints
       FOR EACH STATEMENT EXECUTE FUNCTION never_changed()""",
    """CREATE TRIGGER checkpoints_in_order BEFORE INSERT ON checkpoints
       FOR EACH ROW EXECUTE FUNCTION checkpoints_only_appended()""",
    """CREATE TRIGGER payloads_never BEFORE UPDATE ON payloads
       FOR EACH ROW EXECUTE FUNCTION never_changed()""",
    """CREATE TRIGGER payloads_not_emptied BEFORE TRUNCATE ON payloads
       FOR EACH STATEMENT EXECUTE FUNCTION never_changed()""",
    """CREATE TRIGGER payloads_erase_needs_tombstone BEFORE DELETE ON payloads
       FOR EACH ROW EXECUTE FUNCTION payload_erased_with_tombstone()""",
)


def create_guards(connection: sa.Connection) -> None:
    """Create the triggers that keep events, payloads and checkpoints append-only."""
    for statement in _ON_SQLITE if connection.dialect.name == "sqlite" else _ON_POSTGRESQL:
        connection.exec_driver_sql(statement)
