// simple-oauth2: authorization code for a confidential client, and its refresh.
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { AuthorizationCode } from 'simple-oauth2'

const { GATEWAY } = process.env
const client = new AuthorizationCode({
  client: { id: 'web', secret: 'web-secret' },
  auth: { tokenHost: GATEWAY, tokenPath: '/token', authorizePath: '/authorize' },
})
const redirect_uri = 'https://app.example/callback'
const code_verifier = randomBytes(32).toString('base64url')
console.log(client.authorizeURL({
  redirect_uri, scope: 'orders:read', state: 'a state',
  code_challenge: createHash('sha256').update(code_verifier).digest('base64url'),
  code_challenge_method: 'S256',
}))
const [line] = await once(createInterface({ input: process.stdin }), 'line')
const answer = new URL(line).searchParams
assert.equal(answer.get('state'), 'a state')
const accessToken = await client.getToken({ code: answer.get('code'), redirect_uri, code_verifier })
const refreshed = await accessToken.refresh()
const reply = await fetch(new URL('/api/x', GATEWAY), {
  headers: { authorization: `Bearer ${refreshed.token.access_token}` },
})
assert.equal(await reply.text(), 'ok')
console.log('all is well')
process.exit(0)
