/** Colours, for a terminal that shows them: picocolors by itself takes a pipeline, where CI is set, for one. */
import picocolors from 'picocolors';

const { NO_COLOR, FORCE_COLOR, TERM } = process.env;

export const pc = picocolors.createColors(
  !NO_COLOR && (Boolean(FORCE_COLOR) || (process.stdout.isTTY === true && TERM !== 'dumb')),
);
