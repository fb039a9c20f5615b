/** Members of the engine's roles: as they are, and as the records have them. */
import type pg from 'pg';
import type { Run } from '../../../core/payloads.ts';
import {
  type MembersChange,
  membersChange,
  membersInWords,
  type RoleMembers,
} from '../../../core/preflight/members.ts';
import { recordEvent } from '../runs/events.ts';

export async function readMembers(client: pg.ClientBase): Promise<RoleMembers[]> {
  const { rows } = await client.query<RoleMembers>(
    'select role, members from encryption_rollout.role_members()',
  );
  return rows;
}

/**
 * Writes down who they are, when nobody has yet or when they have changed since.
 * @param tell of the change, before it is written down: what could not be told is told at the next look
 */
export async function noteMembers(
  client: pg.ClientBase,
  run: Run,
  tell: (change: MembersChange) => Promise<void>,
): Promise<void> {
  const { rows } = await client.query<{ members: RoleMembers[] }>(
    `select detail -> 'members' as members from encryption_rollout.events
     where event in ('MEMBERS_LISTED', 'MEMBERS_CHANGED') order by id desc limit 1`,
  );
  const members = await readMembers(client);
  const [before] = rows;
  if (before === undefined) {
    await recordEvent(client, run, 'MEMBERS_LISTED', { now: membersInWords(members), members });
    return;
  }
  const change = membersChange(before.members, members);
  if (change === undefined) return;
  await tell(change);
  await recordEvent(client, run, 'MEMBERS_CHANGED', {
    added: membersInWords(change.added),
    removed: membersInWords(change.removed),
    members,
  });
}
