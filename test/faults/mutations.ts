/** Deliberate defects: a text that occurs once in a file, what replaces it, and the test file that must then fail. */
export interface Mutation {
  /** In a few words, for docs/reliability.md. */
  readonly defect: string;
  readonly file: string;
  readonly search: string;
  readonly replace: string;
  readonly caughtBy: string;
}

export const mutations: readonly Mutation[] = [
];
