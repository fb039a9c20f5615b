import { publish } from './adapters/cloudwatch.ts';
import { readHealth } from './adapters/engine.ts';
import { isRotation } from './adapters/keys.ts';
import { closeRun, countErrorsByType, readPlaintextProof, recordEvent } from './adapters/records.ts';
import { explainReason } from './core/errors.ts';
import {
  GatherEvidenceInput,
  type GatherEvidenceOutput,
  type ProvePlaintextOutput,
} from './core/payloads.ts';
import type { Health } from './core/progress.ts';
import { readVitals } from './measurements.ts';
import { handlerOf, unattachedSession, unpublished } from './step.ts';

/** Last step of a rollback: what the plan's assessment asks for, kept with the run and told to the person who is paged. */
export const handler = handlerOf('GatherEvidence', GatherEvidenceInput, async ({ run, reason }, step) => {
  const { target } = step;
  return step.database(unattachedSession, async (client): Promise<GatherEvidenceOutput> => {
    const why = explainReason(reason);
    const health = await readHealth(client, target);
    const errors = await countErrorsByType(client, run);
    const rotating = await isRotation(client, run);
    const proof = await readPlaintextProof(client, run);
    await recordEvent(client, run, 'EVIDENCE', { health, errors, vitals: await readVitals(step, client) });
    await closeRun(client, run, 'STOPPED', why);
    // Stopped it is, whoever counts it: with CloudWatch down the rollback is complete all the same.
    await publish(target, { RolloutStopped: 1 }).catch(unpublished(step));
    const counted = Object.entries(errors).map(([type, count]) => `${count} ${type}`);
    return {
      summary: [
        `The encryption rollout of ${target} has stopped. ${why}.`,
        `Now: ${rotating ? rotationState(health) : encryptionState(health)}, ${plaintextState(proof)}; errors in this attempt: ${counted.join(', ') || 'none'}.`,
        `Next: find the cause (docs/runbook.md), then start a new execution: it resumes run ${run.id}.`,
      ].join(' '),
    };
  });
});

function encryptionState({ triggerEnabled, encryptedRows, rowsWithPii }: Health): string {
  return `trigger ${triggerEnabled ? 'STILL ENABLED' : 'disabled'}, ${encryptedRows} of ${rowsWithPii} rows encrypted`;
}

function rotationState({ triggerEnabled, encryptedRows, rowsWithPii, readablePercentage }: Health): string {
  return `trigger ${triggerEnabled ? 'enabled, and left so because the key is being rotated' : 'DISABLED'}, ${encryptedRows} of ${rowsWithPii} rows moved to the new key, ${readablePercentage} % encrypted with a key in use`;
}

function plaintextState(proof: ProvePlaintextOutput | undefined): string {
  if (proof === undefined) return 'plaintext NOT PROVEN readable (ProvePlaintext gave no result)';
  if (proof.ciphertextOnlyRows > 0)
    return `${proof.ciphertextOnlyRows} rows HOLD CIPHERTEXT WITHOUT PLAINTEXT, which somebody else must have deleted`;
  return `all plaintext in place (${proof.plaintextRows} rows read)`;
}
