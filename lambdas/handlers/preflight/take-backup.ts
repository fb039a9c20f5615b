import { beginBackup, latestOf, listBackups } from '../../adapters/aws/backups.ts';
import { recordEvent } from '../../adapters/postgres/runs/events.ts';
import { TakeBackupInput, type TakeBackupOutput } from '../../core/payloads.ts';
import { handlerOf, unattachedSession } from '../step.ts';

/**
 * Takes a snapshot when it is to, and the latest backup is too old. Asked again until it is available. Whatever keeps it
 * from being taken is recorded, and READY: preflight refuses, with that reason.
 */
export const handler = handlerOf(
  'TakeBackup',
  TakeBackupInput,
  async ({ run }, step): Promise<TakeBackupOutput> => {
    const { settings, plan } = step;
    if (!settings.takeBackup) return { outcome: 'READY' };
    const record = (event: string, detail: Record<string, unknown>) =>
      step.database(unattachedSession, (client) => recordEvent(client, run, event, detail));
    // The same for every call of an attempt, and so at most one snapshot for each.
    const id = `encryption-rollout-${run.id}-${run.attempt}`;
    try {
      const backups = await listBackups(settings.database);
      const latest = latestOf(backups);
      if (latest !== null && Date.now() - latest.getTime() <= plan.backupMaxAgeHours * 3_600_000)
        return { outcome: 'READY' };
      const ours = backups.find((backup) => backup.id === id);
      if (ours === undefined) {
        if (await beginBackup(settings.database, id)) await record('BACKUP_STARTED', { snapshot: id });
        return { outcome: 'WAIT' };
      }
      if (ours.status !== 'available' && ours.status !== 'failed') return { outcome: 'WAIT' };
      await record('BACKUP_FAILED', {
        snapshot: id,
        reason: `the snapshot ${id} ${ours.status === 'failed' ? 'failed' : 'was too old when it was available'}`,
      });
    } catch (error) {
      const { name, message } = error as Error;
      step.logger.warn('no backup was taken', { type: name, reason: message });
      await record('BACKUP_FAILED', { snapshot: id, reason: name });
    }
    return { outcome: 'READY' };
  },
);
