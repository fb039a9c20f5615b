/** Who is a member of the engine's roles: of all that may open values or reach the key, those to whom somebody has given it. Pure. */
import { named } from '../gates/judgement.ts';

/** One of the roles that there are, without `encryption_rollout_`. */
export interface RoleMembers {
  readonly role: string;
  /** `support`, `support (through staff)`, `dba (may grant it)` */
  readonly members: readonly string[];
}

/** Of each role in words: a group may have thousands. */
const MOST_NAMED = 20;

/** `owner: rollout; operator: nobody; decryptor: billing, support (through staff); reader: nobody`; empty without roles. */
export function membersInWords(roles: readonly RoleMembers[]): string {
  return roles.map(({ role, members }) => `${role}: ${named(members, MOST_NAMED) || 'nobody'}`).join('; ');
}

export interface MembersChange {
  readonly added: readonly RoleMembers[];
  readonly removed: readonly RoleMembers[];
}

/** Who has come and who has gone; undefined when nobody has. */
export function membersChange(
  before: readonly RoleMembers[],
  now: readonly RoleMembers[],
): MembersChange | undefined {
  const added = without(now, before);
  const removed = without(before, now);
  return added.length === 0 && removed.length === 0 ? undefined : { added, removed };
}

function without(these: readonly RoleMembers[], those: readonly RoleMembers[]): RoleMembers[] {
  return these.flatMap(({ role, members }) => {
    const others = those.find((each) => each.role === role)?.members ?? [];
    const rest = members.filter((member) => !others.includes(member));
    return rest.length === 0 ? [] : [{ role, members: rest }];
  });
}
