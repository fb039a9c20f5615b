/** What is said of a configuration that is wrong: for people who have not met zod. */
import type * as z from 'zod';

/** A setting is wrong or missing. The message is for the operator: one line per setting. */
export class ConfigurationError extends Error {
  override readonly name = 'ConfigurationError';
}

export const sample = (value: unknown) => {
  const text = JSON.stringify(value);
  return text === undefined ? 'nothing' : text.length > 80 ? `${text.slice(0, 79)}…` : text;
};

/** For people who have not met zod. */
const kinds: Readonly<Record<string, string>> = {
  array: 'a list',
  record: 'an object',
  int: 'a whole number',
};

/** `expected …`; where zod has only its own words for it, in ours. */
function expectedBy(issue: z.core.$ZodIssue): string {
  if (issue.code === 'too_big' && issue.origin === 'number') return `expected at most ${issue.maximum}`;
  if (issue.code === 'too_small' && issue.origin === 'number')
    return `expected ${issue.inclusive ? 'at least' : 'more than'} ${Number(Number(issue.minimum).toPrecision(2))}`;
  if (issue.code === 'too_small' && issue.message.startsWith('Too small'))
    return issue.origin === 'array' ? 'expected at least one' : 'expected some text';
  if (issue.code === 'invalid_type' && issue.message.startsWith('Invalid '))
    return `expected ${kinds[issue.expected] ?? issue.expected}`;
  // Of zod's own "Invalid input: expected …, received …" only the middle is news.
  return issue.message.replace(/^Invalid [^:]*: /, '').replace(/, received .*$/, '');
}

/**
 * A line for each wrong setting: what was found, and what is expected.
 * @param source what the message calls the configuration, e.g. the file's path
 * @param known what to say of a setting at the top that is none here; undefined = it is one nowhere
 */
export function issuesInWords(
  source: string,
  issues: readonly z.core.$ZodIssue[],
  known: (key: string) => string | undefined = () => undefined,
): string {
  return issues
    .flatMap((issue) => {
      const path = issue.path.join('.');
      if (issue.code === 'unrecognized_keys')
        return issue.keys.map(
          (key) =>
            `${source}: ${path ? `${path}.` : ''}${key}: ${(path === '' && known(key)) || 'unknown setting'}`,
        );
      return `${source}: ${path || 'the configuration'}: found ${sample(issue.input)}, ${expectedBy(issue)}`;
    })
    .join('\n');
}
