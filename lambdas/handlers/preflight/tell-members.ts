import type pg from 'pg';
import { publish } from '../../adapters/aws/cloudwatch.ts';
import { noteMembers } from '../../adapters/postgres/preflight/members.ts';
import type { Run } from '../../core/payloads.ts';
import { membersInWords, type RoleMembers } from '../../core/preflight/members.ts';
import type { Step } from '../step.ts';

/** Tells when somebody has come to the engine's roles, or gone, since the last look, and keeps who they are. */
export function tellMembers(client: pg.Client, run: Run, { logger }: Step): Promise<void> {
  const count = (roles: readonly RoleMembers[]) =>
    roles.reduce((sum, { members }) => sum + members.length, 0);
  return noteMembers(client, run, async ({ added, removed }) => {
    logger.warn('members of the roles have changed', {
      added: membersInWords(added),
      removed: membersInWords(removed),
    });
    await publish(null, { MembersChanged: count(added) + count(removed) });
  });
}
