// Asks Node: HOW lookup FAMILY NAME, HOW reverse IP, or HOW srv NAME, where HOW
// is "lookup" (the C library) or "resolve" (c-ares). FAMILY is any, 4 or 6.
// Prints "addr A", "name N", "srv PORT" or "error CODE" lines, then "ms N".
const dns = require('dns').promises

async function addresses (how, family, name) {
  if (how === 'lookup') {
    const list = await dns.lookup(name, { all: true, family: family === 'any' ? 0 : Number(family) })
    return list.map(a => 'addr ' + a.address)
  }
  const asked = []
  if (family !== '6') asked.push(dns.resolve4(name))
  if (family !== '4') asked.push(dns.resolve6(name))
  const done = await Promise.allSettled(asked)
  const found = done.filter(d => d.status === 'fulfilled').flatMap(d => d.value)
  if (found.length === 0) throw done[0].reason
  return found.map(a => 'addr ' + a)
}

async function main ([how, what, ...args]) {
  switch (what) {
    case 'lookup': return addresses(how, ...args)
    case 'reverse': return (await dns.reverse(args[0])).map(n => 'name ' + n)
    case 'srv': return (await dns.resolveSrv(args[0])).map(s => 'srv ' + s.port)
  }
  throw new Error('usage')
}

const from = process.hrtime.bigint()
main(process.argv.slice(2)).catch(e => {
  if (['ENOTFOUND', 'ENODATA'].includes(e.code)) return ['error notfound']
  if (['EAI_AGAIN', 'ESERVFAIL', 'EREFUSED', 'ETIMEOUT', 'ECONNREFUSED'].includes(e.code)) return ['error again']
  return ['error ' + e.code + ' ' + e.message]
}).then(lines => {
  console.log(lines.join('\n'))
  console.log('ms ' + (process.hrtime.bigint() - from) / 1000000n)
})
