import fc from 'fast-check';

/** Runs of each property; `PROPERTY_RUNS=1000 npm test -- test/properties` looks longer. */
export const runs = (normally: number) => Number(process.env.PROPERTY_RUNS ?? normally);

/** How long the model of the tables runs, instead of a number of runs: `PROPERTY_MINUTES=60 npm run test:properties`. */
export const minutes = Number(process.env.PROPERTY_MINUTES ?? 0);

/** Any text that PostgreSQL can hold: of every plane of Unicode, but without the null character. */
export const text = fc
  .oneof(
    fc.constant(''),
    fc.string({ unit: 'binary', maxLength: 40 }),
    fc.string({ unit: 'grapheme', maxLength: 20 }),
    fc.constantFrom(
      'person@example.com',
      '+15555550100',
      ' ',
      '\n',
      "'; --",
      '\\x00',
      '\u{10ffff}',
      '\ufeff',
    ),
    fc
      .tuple(fc.string({ unit: 'binary', minLength: 1, maxLength: 8 }), fc.integer({ min: 100, max: 5_000 }))
      .map(([piece, times]) => piece.repeat(times)),
  )
  .map((value) => value.replaceAll('\0', '0'));

export const bytes = (length: number) =>
  fc.uint8Array({ minLength: length, maxLength: length }).map((array) => Buffer.from(array));
