/**
 * Errors by what can be done about them. Step Functions matches `name`: TransientError is retried, all others are
 * final. Messages say what was found, what was expected and what to do; never a value of a row, never a key.
 */
class NamedError extends Error {
  /** PostgreSQL's code, where it was PostgreSQL that refused. Its message is not kept: it may quote a row. */
  readonly sqlState: string | undefined;

  constructor(message: string, sqlState?: string) {
    super(message);
    this.name = new.target.name;
    this.sqlState = sqlState;
  }
}

/** Goes away by itself: a lost connection, a deadlock, a lock time-out, a throttled call. */
export class TransientError extends NamedError {}
export class InvalidInput extends NamedError {}
export class InvalidSettings extends NamedError {}
/** Another execution is working on this database. */
export class RunAlreadyActive extends NamedError {}
/** A newer attempt, or a rollback, has taken the run over: this handler may not write any more. */
export class RunSuperseded extends NamedError {}
/** The key in Secrets Manager is not the one that the database encrypts with. */
export class WrongKey extends NamedError {}
/** The key cannot be read, or is not a key. */
export class KeyUnavailable extends NamedError {}
export class DatabaseUnreachable extends NamedError {}
export class MissingPrerequisite extends NamedError {}
export class UnusableTarget extends NamedError {}
/** PostgreSQL refused a statement for another reason; carries its SQLSTATE. */
export class DatabaseError extends NamedError {}

/** Lists zod's issues as `field: what is wrong`, one clause each, without the received values. */
export function listIssues(issues: readonly Issue[]): string {
  return issues
    .map(({ path, message, issues: [within] = [] }) => {
      // Of a key that is wrong, what it should have been is said inside.
      return `${path.map(String).join('.') || 'input'}: ${within?.message ?? message}`;
    })
    .join('; ');
}

interface Issue {
  readonly path: PropertyKey[];
  readonly message: string;
  readonly issues?: readonly { readonly message: string }[];
}

/** Characters of a reason that becomes the cause of an execution: AWS takes 32,768, and a cause within a cause is escaped anew. */
const maxReason = 2_000;

/** The text as far as it may become a cause. */
export function bounded(text: string): string {
  return text.length <= maxReason ? text : `${text.slice(0, maxReason - 2)} …`;
}

/** A caught error as Step Functions tells it; without a cause when there was no answer at all. */
export interface CaughtError {
  readonly Error: string;
  readonly Cause?: string | undefined;
}

/** Errors whose cause is a sentence of ours already. */
const reasoned = ['Breach', 'PhaseStopped', 'ExecutionEnded'];

/**
 * What lies innermost in a caught error, whose cause is JSON: a handler's `{errorType, errorMessage}`, the failed child
 * execution with its own `Error` and `Cause`, or such an error once more.
 */
function innermost({ Error: error, Cause: cause = '' }: CaughtError): {
  Error: string;
  Cause: string;
} {
  const here = { Error: error, Cause: cause };
  let parsed: unknown;
  try {
    parsed = JSON.parse(cause);
  } catch {
    return here;
  }
  if (typeof parsed !== 'object' || parsed === null) return here;
  const { errorType, errorMessage, Error: inner, ...child } = parsed as Record<string, unknown>;
  if (typeof errorType === 'string') return { Error: errorType, Cause: String(errorMessage) };
  if (typeof inner === 'string')
    return innermost({ Error: inner, Cause: typeof child.Cause === 'string' ? child.Cause : '' });
  return typeof child.ExecutionArn === 'string'
    ? { Error: 'ExecutionEnded', Cause: `The execution ${child.ExecutionArn} ended as ${child.Status}` }
    : here;
}

/** One sentence of a rollback's reason: itself, or what lies innermost in an error. */
export function explainReason(reason: string | CaughtError): string {
  if (typeof reason === 'string') return reason;
  const { Error: error, Cause: cause } = innermost(reason);
  return reasoned.includes(error) && cause !== '' ? cause : `${error}: ${cause || 'no cause given'}`;
}

/** The error for people: the innermost one, in words where it has none, never under a name that Step Functions keeps for itself. */
export function explained(caught: CaughtError): { Error: string; Cause: string; reason: string } {
  const { Error: error, Cause: cause } = innermost(caught);
  const readable = {
    Error: error.replace(/^States\./, ''),
    Cause: bounded(cause || 'The last step gave no answer in time, and no cause. See its log.'),
  };
  return { ...readable, reason: bounded(explainReason(readable)) };
}
