/** What a person types where a rollback could not. Pure. */
import type { Target } from '../plan/settings.ts';

/** Switches the table's trigger off. */
export function switchOffByHand({
  schema,
  table,
  trigger,
}: Pick<Target, 'schema' | 'table' | 'trigger'>): string {
  return `ALTER TABLE ${quoted(schema)}.${quoted(table)} DISABLE TRIGGER ${quoted(trigger)};`;
}

function quoted(identifier: string): string {
  return /^[a-z_][a-z0-9_]*$/.test(identifier) ? identifier : `"${identifier.replaceAll('"', '""')}"`;
}
