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

/**
 * One sentence of a rollback's reason: itself, or what lies innermost in Step Functions' `{Error, Cause}`, whose cause is
 * JSON: a handler's `{errorType, errorMessage}`, or the failed child execution with its own `Error` and `Cause`.
 */
export function explainReason(reason: string | { Error: string; Cause: string }): string {
  if (typeof reason === 'string') return reason;
  let { Error: error, Cause: cause } = reason;
  for (;;) {
    let parsed: Partial<
      Record<'ExecutionArn' | 'Status' | 'Error' | 'Cause' | 'errorType' | 'errorMessage', unknown>
    >;
    try {
      parsed = JSON.parse(cause);
    } catch {
      return `${error}: ${cause || 'no cause given'}`;
    }
    if (typeof parsed !== 'object' || parsed === null) return `${error}: ${cause}`;
    if (typeof parsed.errorType === 'string') return `${parsed.errorType}: ${String(parsed.errorMessage)}`;
    if (typeof parsed.Error !== 'string')
      return typeof parsed.ExecutionArn === 'string'
        ? `The execution ${parsed.ExecutionArn} ended as ${parsed.Status}`
        : `${error}: ${cause}`;
    error = parsed.Error;
    cause = typeof parsed.Cause === 'string' ? parsed.Cause : '';
  }
}
